/** What a person can act on: one sentence that says what is wrong, and a remedy. */
export class TestMachineError extends Error {
  readonly remedy: string;

  constructor(message: string, remedy: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "TestMachineError";
    this.remedy = remedy;
  }
}
