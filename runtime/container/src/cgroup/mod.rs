//! cgroups of version 1 (one hierarchy per controller), version 2, and machines that have both.
pub(crate) mod cell;
pub(crate) mod hierarchy;
pub(crate) mod leftovers;
