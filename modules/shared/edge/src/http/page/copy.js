"use strict";
// A button of class `copy` copies the address beside it.
document.addEventListener("click", async ({ target }) => {
  if (!target.matches(".copy")) return;
  const address = target.parentNode.querySelector("a, code");
  let copied = true;
  try {
    await navigator.clipboard.writeText(address.textContent);
  } catch {
    // Browsers offer the clipboard on https and localhost only; elsewhere a selection can be copied.
    getSelection().selectAllChildren(address);
    copied = document.execCommand("copy");
  }
  target.textContent = copied ? "Copied" : "Selected";
});
