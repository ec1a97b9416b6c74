use cloister_container::namespaces::bring_loopback_up;

use crate::failure::{Failure, Step};

/// Host name; and the loopback interface of a network namespace that has no other and is new.
pub fn bring_up(name: &str, is_new: bool) -> Result<(), Failure> {
    rustix::system::sethostname(name.as_bytes()).wall("host name")?;
    if is_new {
        bring_loopback_up().wall("loopback")?;
    }
    Ok(())
}
