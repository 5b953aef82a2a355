// Signing in is not needed by who comes from a link of another site, as Airflow's may be: browsers send that first
// request without the session's cookie, and send it with what this page requests.

const { base, target } = document.querySelector("form.sign-in").dataset;

const answer = await fetch(`${base}/sign-in`, { headers: { Accept: "application/json" }, credentials: "same-origin" });
if ((await answer.json()).signed_in) window.location.replace(base + target);
