// Hashes, ciphers, keys and signatures, in this thread and in the pool; web cryptography.
import crypto, { webcrypto } from "node:crypto";
import { promisify } from "node:util";

for (const name of ["md5", "sha1", "sha256", "sha512", "sha3-256", "blake2b512", "ripemd160"]) {
  console.log(name, crypto.createHash(name).update("text").digest("hex").slice(0, 16));
}
console.log("hmac", crypto.createHmac("sha256", "key").update("text").digest("base64"));
console.log("scrypt", (await promisify(crypto.scrypt)("password", "salt", 32)).toString("hex"));
const rounds = Array.from({ length: 8 }, (_, i) =>
  promisify(crypto.pbkdf2)("password", `salt${i}`, 5000, 16, "sha512"),
);
console.log(
  "pbkdf2",
  (await Promise.all(rounds)).map((one) => one.toString("hex").slice(0, 8)).join(" "),
);
console.log(
  "hkdf",
  Buffer.from(await promisify(crypto.hkdf)("sha256", "key", "salt", "info", 16)).toString("hex"),
);

const key = Buffer.alloc(32, 1);
const iv = Buffer.alloc(12, 2);
const cipher = crypto.createCipheriv("aes-256-gcm", key, iv);
const sealed = Buffer.concat([cipher.update("secret text"), cipher.final()]);
const tag = cipher.getAuthTag();
console.log("aes-256-gcm", sealed.toString("hex"), tag.toString("hex"));
const open = crypto.createDecipheriv("aes-256-gcm", key, iv).setAuthTag(tag);
console.log("opened", open.update(sealed, undefined, "utf8") + open.final("utf8"));
const forged = crypto.createDecipheriv("aes-256-gcm", key, iv).setAuthTag(Buffer.alloc(16));
forged.update(sealed);
try {
  forged.final();
} catch (error) {
  console.log("forged", error.message);
}

for (const [type, options, hash] of [
  ["rsa", { modulusLength: 2048 }, "sha256"],
  ["ec", { namedCurve: "P-256" }, "sha256"],
  ["ed25519", {}, null],
]) {
  const pair = await promisify(crypto.generateKeyPair)(type, options);
  const signature = crypto.sign(hash, Buffer.from("text"), pair.privateKey);
  const good = crypto.verify(hash, Buffer.from("text"), pair.publicKey, signature);
  const bad = crypto.verify(hash, Buffer.from("other"), pair.publicKey, signature);
  console.log(
    type,
    good,
    bad,
    pair.publicKey.export({ type: "spki", format: "pem" }).split("\n")[0],
  );
}
const [a, b] = [crypto.createECDH("prime256v1"), crypto.createECDH("prime256v1")];
a.generateKeys();
b.generateKeys();
console.log(
  "shared secret",
  a.computeSecret(b.getPublicKey()).equals(b.computeSecret(a.getPublicKey())),
);
const x = [crypto.generateKeyPairSync("x25519"), crypto.generateKeyPairSync("x25519")];
const secret = (mine, theirs) =>
  crypto.diffieHellman({ privateKey: mine.privateKey, publicKey: theirs.publicKey });
console.log("x25519", secret(x[0], x[1]).equals(secret(x[1], x[0])));

const { subtle } = webcrypto;
console.log(
  "digest",
  Buffer.from(await subtle.digest("SHA-384", Buffer.from("text")))
    .toString("hex")
    .slice(0, 16),
);
const wrapped = await subtle.generateKey({ name: "AES-CBC", length: 128 }, true, [
  "encrypt",
  "decrypt",
]);
const box = await subtle.encrypt(
  { name: "AES-CBC", iv: Buffer.alloc(16) },
  wrapped,
  Buffer.from("0123456789abcdef!"),
);
const unboxed = await subtle.decrypt({ name: "AES-CBC", iv: Buffer.alloc(16) }, wrapped, box);
console.log("web cipher", box.byteLength, Buffer.from(unboxed).toString());
const signer = await subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, false, [
  "sign",
  "verify",
]);
const algorithm = { name: "ECDSA", hash: "SHA-384" };
const mark = await subtle.sign(algorithm, signer.privateKey, Buffer.from("text"));
console.log(
  "web signature",
  mark.byteLength,
  await subtle.verify(algorithm, signer.publicKey, mark, Buffer.from("text")),
);

console.log("random", new Set(Array.from({ length: 1000 }, () => crypto.randomUUID())).size);
console.log("random bytes", new Set([...(await promisify(crypto.randomBytes)(65536))]).size);
console.log(
  "random integers",
  Array.from({ length: 100 }, () => crypto.randomInt(10)).every((n) => n >= 0 && n < 10),
);
console.log(
  "filled",
  webcrypto.getRandomValues(new Uint8Array(1000)).some((byte) => byte !== 0),
);
console.log("prime", crypto.checkPrimeSync(await promisify(crypto.generatePrime)(64)));
console.log("equal", crypto.timingSafeEqual(Buffer.from("a"), Buffer.from("a")));
console.log("certificate store", (await import("node:tls")).rootCertificates.length > 50);
