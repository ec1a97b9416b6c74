import type { IncomingHttpHeaders } from "node:http";
import type { Dispatcher } from "undici";

export interface SmallAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/**
 * Asks for an answer of few bytes, without the streams that undici's `request` makes of each: a benchmark's client has the processors of what it measures.
 * Rejects when there is no whole answer.
 */
export const smallAnswer = (
  dispatcher: Dispatcher,
  request: Dispatcher.DispatchOptions,
): Promise<SmallAnswer> =>
  new Promise((resolve, reject) => {
    let status = 0;
    let headers: IncomingHttpHeaders = {};
    const parts: Buffer[] = [];
    dispatcher.dispatch(request, {
      onRequestStart() {},
      onResponseStart(_controller, statusCode, told) {
        status = statusCode;
        headers = told;
      },
      onResponseData(_controller, bytes) {
        parts.push(bytes);
      },
      onResponseEnd() {
        resolve({ status, headers, text: Buffer.concat(parts).toString() });
      },
      onResponseError(_controller, error) {
        reject(error);
      },
    });
  });
