// abort() ends the program by a signal.
console.log("before");
process.abort();
