const SETTLED = Promise.resolve();
/** After a call of this length those that wait may have been called back, ms. */
const LONG_MS = 10;

/** Calls whose requests are whole: each is run at once, or, if it came `behind` others, when those have ended and their answers have left. */
export class Line {
  #wire;
  #run;
  #waiting = [];
  #underWay = 0;
  /** When the last one began. */
  #beganMs = 0;
  #moving = false;

  /** `run(call)` calls the function. */
  constructor(wire, run) {
    this.#wire = wire;
    this.#run = run;
  }

  /** Calls that wait here. */
  get length() {
    return this.#waiting.length;
  }

  take(call) {
    if (!call.behind || (this.#isFree && this.#wire.allSent)) this.#begin(call);
    else {
      this.#waiting.push(call);
      this.#move();
    }
  }

  /** One is closed, wherever it was. */
  left(call) {
    if (call.begun) this.#underWay--;
    else this.leave(call);
    this.#move();
  }

  /** Takes out one that waits; false if it does not. */
  leave(call) {
    const index = this.#waiting.indexOf(call);
    if (index < 0) return false;
    this.#waiting.splice(index, 1);
    return true;
  }

  /** All that wait, and wait no more. */
  leaveAll() {
    return this.#waiting.splice(0);
  }

  get #isFree() {
    return this.#underWay === 0 && this.#waiting.length === 0 && !this.#moving;
  }

  /**
   * A call whose process ends before it began was seen by nobody, and is another sandbox's then. So the answer before it has left by then, and what that
   * call's promises had still to do is done. Only after a long one frames are read in between.
   */
  #move() {
    if (this.#moving || this.#underWay > 0 || this.#waiting.length === 0) return;
    this.#moving = true;
    if (performance.now() - this.#beganMs < LONG_MS) SETTLED.then(this.#afterMicrotasks);
    // The first may come before the loop has asked for what is there to be read.
    else setImmediate(() => setImmediate(this.#next));
  }

  #afterMicrotasks = () => process.nextTick(this.#next);

  #next = () => {
    this.#wire.whenSent(() => {
      this.#moving = false;
      const call = this.#underWay === 0 ? this.#waiting.shift() : undefined;
      if (call) this.#begin(call);
    });
  };

  #begin(call) {
    this.#underWay++;
    call.begin();
    this.#beganMs = call.startedMs;
    this.#run(call);
  }
}
