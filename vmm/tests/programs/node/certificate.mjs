// A key and a certificate for localhost that it signs itself, made anew in each run (RFC 5280 in DER).
import { generateKeyPairSync, sign } from "node:crypto";

const der = (tag, ...parts) => {
  const body = Buffer.concat(parts.map((part) => Buffer.from(part)));
  const length = body.length < 128 ? [body.length] : [0x82, body.length >> 8, body.length & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
};
const sequence = (...parts) => der(0x30, ...parts);
const COMMON_NAME = [0x55, 4, 3];
const ALTERNATIVE_NAME = [0x55, 0x1d, 0x11];
const ECDSA_WITH_SHA256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

const pair = generateKeyPairSync("ec", { namedCurve: "P-256" });
const algorithm = sequence(der(6, ECDSA_WITH_SHA256));
const name = sequence(der(0x31, sequence(der(6, COMMON_NAME), der(0x0c, "localhost"))));
const names = sequence(der(6, ALTERNATIVE_NAME), der(4, sequence(der(0x82, "localhost"))));
const body = sequence(
  der(0xa0, der(2, [2])),
  der(2, [1]),
  algorithm,
  name,
  sequence(der(0x17, "200101000000Z"), der(0x17, "491231235959Z")),
  name,
  pair.publicKey.export({ type: "spki", format: "der" }),
  der(0xa3, sequence(names)),
);
const signed = sequence(body, algorithm, der(3, [0], sign("sha256", body, pair.privateKey)));

export const key = pair.privateKey.export({ type: "pkcs8", format: "pem" });
export const cert = `-----BEGIN CERTIFICATE-----\n${signed.toString("base64")}\n-----END CERTIFICATE-----\n`;
