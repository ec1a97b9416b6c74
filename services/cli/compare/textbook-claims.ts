/** What is said of virtual machines and containers in general; a number in brackets names the source. */
export const CLAIMS = {
  kernel: ["one of its own, booted", "the host's, shared by all"],
  isolation: [
    "hardware: another kernel behind a hypervisor",
    "namespaces and control groups of one kernel",
  ],
  calls: [
    "none by the guest; its hypervisor's for it",
    "more than 300, less about 44 that Docker's filter shuts out [2]",
  ],
  namespaces: ["not needed", "pid, mnt, net, uts, ipc, and often user and cgroup"],
  cold: [
    "slow: an operating system boots [1]; Firecracker under 125 ms to a guest's program [3]",
    "that of an isolated process [1]",
  ],
  ready: ["from a snapshot, if there is one", "-"],
  warm: ["-", "-"],
  cpu: ["almost none [4]", "almost none [4]"],
  memoryTouch: ["a second level of page tables is filled", "as a process"],
  calls5000: ["served by the guest's kernel", "as a process, and a filter"],
  private: ["a whole guest; Firecracker adds under 5 MB for itself [3]", "the process's own"],
  shared: ["little: each guest has its own cache", "files of the image, once for all"],
  image: ["a whole operating system, tens of GB [1]", "tens of MB [1]"],
  faults: ["-", "-"],
  switches: ["-", "-"],
  exits: ["for devices, timers and page tables", "there are none"],
  exitCost: ["-", "there are none"],
} as const satisfies Record<string, readonly [vm: string, container: string]>;
export type ClaimRow = keyof typeof CLAIMS;

export const SOURCES: readonly string[] = [
  '[1] Docker, Inc.: "What is a Container?", the page that compares containers with virtual machines',
  '[2] Docker\'s manual: "Seccomp security profiles for Docker"',
  '[3] Agache and others: "Firecracker: Lightweight Virtualization for Serverless Applications", NSDI 2020',
  '[4] Felter and others: "An Updated Performance Comparison of Virtual Machines and Linux Containers", IBM Research 2014',
];
