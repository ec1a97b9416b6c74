//! When a guest is taken to hang.

/// Seconds; an emulated machine, where every exit of a guest takes up to a hundred times as long, needs more than the default.
const HANGS_AFTER: &str = "CLOISTER_GUESTS_HANG_AFTER";

/// No bound that a working guest comes near to: it ends one that hangs, so that the test fails.
pub fn hangs_after_seconds() -> u32 {
    std::env::var(HANGS_AFTER).map_or(300, |seconds| seconds.parse().unwrap())
}
