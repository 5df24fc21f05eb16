// An authserver on loopback: node provider.mjs '{"clients": [...], "jwks": {"keys": [...]}}'
// Whoever asks for a code is "anna", who has said yes to everything.
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.PACKAGES}/package.json`);
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));
const { clients, jwks } = JSON.parse(process.argv[2]);

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    jwks,
    // Its default, and EdDSA.
    enabledJWA: {
      clientAuthSigningAlgValues: ["RS256", "PS256", "ES256", "EdDSA"],
      idTokenSigningAlgValues: ["RS256", "PS256", "ES256", "EdDSA"],
    },
    scopes: ["openid", "offline_access", "read"],
    clientAuthMethods: ["client_secret_basic", "client_secret_post", "private_key_jwt"],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
      // Access tokens for another service than this one have a scope of their own.
      resourceIndicators: { enabled: false },
    },
    pkce: { required: () => true },
    issueRefreshToken: async () => true,
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
    interactions: { url: (_, interaction) => `/login/${interaction.uid}` },
    loadExistingGrant: async (ctx) => {
      const { client, session } = ctx.oidc;
      const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid offline_access read");
      await grant.save();
      return grant;
    },
  });
  provider.use(async (ctx, next) => {
    if (!ctx.path.startsWith("/login/")) return next();
    await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: "anna" } });
    ctx.respond = false;
  });
  provider.on("server_error", (_, error) => console.error(error));
  server.on("request", provider.callback());
  console.log(`running at ${issuer}`);
});
