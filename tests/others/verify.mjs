// Verify a JWT with what others published: node verify.mjs < {"jwks", "token", "issuer", "audience"}
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.PACKAGES}/package.json`);
const jose = await import(pathToFileURL(require.resolve("jose")));
let text = "";
for await (const chunk of process.stdin) text += chunk;
const { jwks, token, issuer, audience } = JSON.parse(text);
const { payload, protectedHeader } = await jose.jwtVerify(token, jose.createLocalJWKSet(jwks), {
  issuer,
  audience,
});
console.log(JSON.stringify({ payload, protectedHeader }));
