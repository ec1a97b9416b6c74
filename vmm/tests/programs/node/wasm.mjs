// WebAssembly: compiled code, memory that grows, tables, traps, shared memory, many instances.
const bytes = (text) =>
  Uint8Array.from(text.trim().split(/\s+/), (word) => Number.parseInt(word, 16));

// (func (export "fib") (param i32) (result i32)) by recursion; (memory (export "memory") 1 100);
// (func (export "load") (param i32) (result i32) i32.load); (func (export "div") (param i32 i32) (result i32) i32.div_s);
// (func (export "deep") call itself).
const module = new WebAssembly.Module(
  bytes(`00 61 73 6d 01 00 00 00
    01 0f 03 60 01 7f 01 7f 60 02 7f 7f 01 7f 60 00 00
    03 05 04 00 00 01 02
    05 04 01 01 01 64
    07 24 05 03 66 69 62 00 00 04 6c 6f 61 64 00 01 03 64 69 76 00 02 04 64 65 65 70 00 03 06 6d 65 6d 6f 72 79 02 00
    0a 33 04 1c 00 20 00 41 02 48 04 7f 20 00 05 20 00 41 01 6b 10 00 20 00 41 02 6b 10 00 6a 0b 0b 07 00 20 00 28 02 00 0b 07 00 20 00 20 01 6d 0b 04 00 10 03 0b`),
);
console.log(WebAssembly.Module.exports(module).map((one) => `${one.kind} ${one.name}`));
const { fib, load, div, deep, memory } = new WebAssembly.Instance(module).exports;
console.log("fib", fib(25));

const trap = (name, run) => {
  try {
    console.log(name, run());
  } catch (error) {
    console.log(name, error.constructor.name, error.message);
  }
};
new Uint32Array(memory.buffer)[3] = 77;
trap("load", () => load(12));
// Out-of-bounds loads are found by a fault in guard pages and its handler.
trap("load past the end", () => load(65536));
trap("load far past the end", () => load(-4));
console.log("grow", memory.grow(99), memory.buffer.byteLength);
trap("load what grew", () => load(65536));
trap("load past the new end", () => load(6_553_600));
trap("grow too far", () => memory.grow(1));
trap("divide", () => div(7, 2));
trap("divide by zero", () => div(1, 0));
trap("divide overflow", () => div(-2147483648, -1));
trap("deep", () => deep());

for (let i = 0; i < 1000; i++)
  trap.count =
    (trap.count ?? 0) +
    (() => {
      try {
        load(-1);
      } catch {
        return 1;
      }
      return 0;
    })();
console.log("a thousand traps", trap.count);

const instances = Array.from({ length: 20 }, () => new WebAssembly.Instance(module));
console.log(
  "instances",
  instances.reduce((sum, one) => sum + one.exports.fib(15), 0),
);
const shared = new WebAssembly.Memory({ initial: 1, maximum: 1000, shared: true });
shared.grow(500);
console.log("shared", shared.buffer.byteLength, shared.buffer.constructor.name);
const compiled = await WebAssembly.instantiate(module);
console.log("asynchronous", compiled.exports.fib(10));
trap("invalid", () => new WebAssembly.Module(bytes("00 61 73 6d 02 00 00 00")));
