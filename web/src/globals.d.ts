interface TrustedPolicy {
  createScriptURL(url: string): unknown;
}

/** Trusted Types, where a browser has them. */
declare var trustedTypes:
  | {
      createPolicy(
        name: string,
        rules: { createScriptURL: (url: string) => string },
      ): TrustedPolicy;
    }
  | undefined;

/** The version of appmux that this page was built with. */
declare const __VERSION__: string;
/** The files that the service worker keeps, with their hashes. */
declare const __FILES__: string[];
