// An error that nobody catches ends the program with 1 and its text on the standard error.
process.on("exit", (code) => console.log("end", code));
console.log("before");
setTimeout(() => {
  null.property;
}, 1);
