use std::io;

use cloister_container::order::Report;

/// Why no sandbox came of an order.
pub struct Failure {
    pub step: &'static str,
    pub message: String,
    /// The kernel refused a part of the walls.
    pub isolation: bool,
}

impl Failure {
    pub fn setup(step: &'static str, message: &str) -> Failure {
        Failure {
            step,
            message: message.to_owned(),
            isolation: false,
        }
    }

    pub fn isolation(step: &'static str, message: impl ToString) -> Failure {
        Failure {
            step,
            message: message.to_string(),
            isolation: true,
        }
    }

    /// What sandboxd is to hear.
    pub fn report(&self) -> Report {
        Report::Failed {
            step: self.step.to_owned(),
            message: self.message.clone(),
            isolation: self.isolation,
        }
    }
}

/// Names the step in which a call failed.
pub trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
    /// As `step`, where the call makes a wall.
    fn wall(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::setup(step, &error.into().to_string()))
    }

    fn wall(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| Failure::isolation(step, error.into()))
    }
}

/// The outcome of a raw system call.
pub fn checked(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
