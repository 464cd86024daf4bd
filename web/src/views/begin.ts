// The screens that begin something, loaded together: one without the other isn't worth a request.

export { NewView } from "./new.tsx";
export { ShareView } from "./share.tsx";
