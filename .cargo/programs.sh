#!/usr/bin/env bash
# Cargo runs this for the project's own crates: programs.sh RUSTC ARGUMENTS... (build.rustc-workspace-wrapper, .cargo/config.toml)
# In bash, which passes on variables whose names no shell can say (CARGO_BIN_EXE_cloister-vm); dash does not.
rustc=$1
shift
case " $* " in
*" --test "* | *" --crate-name build_script_"*) ;;
*" --crate-type bin "*) set -- "$@" -C panic=abort ;;
esac
case " $* " in
*" --test "*) ;;
*" --crate-name cloister_vm "*" --crate-type bin "* | *" --crate-name cloister_init "*" --crate-type bin "*)
	set -- "$@" -C target-feature=+crt-static
	;;
*" --crate-name cloister_binary_runner "*" --crate-type bin "*)
	set -- "$@" -C target-feature=+crt-static -C relocation-model=static
	;;
esac
exec "$rustc" "$@"
