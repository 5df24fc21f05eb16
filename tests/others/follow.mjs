// A verifier that lives for long: node follow.mjs JWKS-URL AUDIENCE; a line of JSON {"token"} each on
// standard input, and {"kid"} or {"error"} on standard output. It keeps the JWK Set for a second.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.PACKAGES}/package.json`);
const jose = await import(pathToFileURL(require.resolve("jose")));
const [url, audience] = process.argv.slice(2);
const keys = jose.createRemoteJWKSet(new URL(url), { cacheMaxAge: 1000, cooldownDuration: 500 });
for await (const line of createInterface({ input: process.stdin })) {
  let told;
  try {
    const options = { audience, clockTolerance: 600 };
    const { protectedHeader } = await jose.jwtVerify(JSON.parse(line).token, keys, options);
    told = { kid: protectedHeader.kid };
  } catch (error) {
    told = { error: error.code };
  }
  console.log(JSON.stringify(told));
}
