use vmm_abi::Fault;

/// Why a virtual CPU came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The guest executed `syscall`; its registers are those of that moment, with rip behind it.
    Syscall,
    /// The guest caused an exception; rip is that of the instruction (behind it for a trap).
    Fault(Fault),
    /// Another thread kicked this one, or the host wanted its attention.
    Interrupted,
    /// The host could not give a page (a file behind it shrank, memory is out, or the guest's
    /// mappings were being changed).
    PageUnavailable,
}
