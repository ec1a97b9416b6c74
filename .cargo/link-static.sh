#!/usr/bin/env bash
# Cargo runs this for the project's own crates: link-static.sh RUSTC ARGUMENTS... (build.rustc-workspace-wrapper, .cargo/config.toml)
# In bash, which passes on variables whose names no shell can say (CARGO_BIN_EXE_cloister-vm); dash does not.
rustc=$1
shift
case " $* " in
*" --crate-name cloister_vm "*" --crate-type bin "* | *" --crate-name cloister_init "*" --crate-type bin "*)
	set -- "$@" -C target-feature=+crt-static
	;;
esac
exec "$rustc" "$@"
