//! How classes of Node's are stood in for, so that user code cannot tell: objects of a stand-in are instances of the class, and become one when they must.

/** Puts what `make(native)` gives in the place of the global `name`. To read a class of the web there loads it, which takes milliseconds. */
export function replaceGlobal(name, make) {
  const native = globalThis[name];
  const { enumerable } = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, {
    value: make(native),
    configurable: true,
    enumerable,
    writable: true,
  });
}

/**
 * A class with the instances of `native`, its name and its statics, of which `new` gives what `make(arguments)` gives, or Node's own where that is undefined.
 * Classes that extend it extend Node's. Before all that `adapt` may change the arguments.
 */
export function replacement(native, make, adapt = () => {}) {
  const { name } = native;
  const Replacement = function (...given) {
    if (new.target === undefined)
      throw new TypeError(`Class constructor ${name} cannot be invoked without 'new'`);
    adapt(given);
    if (new.target !== Replacement) return Reflect.construct(native, given, new.target);
    return make(given) ?? Reflect.construct(native, given);
  };
  const { prototype: _, ...properties } = Object.getOwnPropertyDescriptors(native);
  Object.defineProperties(Replacement, properties);
  Object.defineProperty(Replacement, "prototype", { value: native.prototype, writable: false });
  Object.defineProperty(native.prototype, "constructor", {
    value: Replacement,
    configurable: true,
    writable: true,
  });
  return Replacement;
}

/** Gives instances of `StandIn` all that instances of `native` have: what it does not know itself is asked of `StandIn.native(instance)`. */
export function delegate(StandIn, native) {
  const own = StandIn.prototype;
  const nativeOf = StandIn.native;
  const described = Object.getOwnPropertyDescriptors(native.prototype);
  for (const key of Reflect.ownKeys(described)) {
    if (Object.hasOwn(own, key) && key !== "constructor") continue;
    const { get, value, enumerable } = described[key];
    if (key === "constructor" || (!get && typeof value !== "function")) {
      // The same for all instances.
      delete own[key];
      continue;
    }
    // None of these classes has anything that can be set.
    const asked = get
      ? {
          get() {
            return Reflect.get(native.prototype, key, nativeOf(this));
          },
        }
      : {
          value(...given) {
            return nativeOf(this)[key](...given);
          },
          writable: true,
        };
    Object.defineProperty(own, key, { ...asked, enumerable, configurable: true });
  }
  Object.setPrototypeOf(own, native.prototype);
}
