// The keys of the settings page: a box holds one character, so what is typed next takes its place.
document.querySelectorAll("input.key").forEach((box) => {
  box.addEventListener("focus", () => box.select());
  box.addEventListener("input", (event) => {
    if (event.isComposing) return;
    const typed = [...box.value];
    if (typed.length > 1) box.value = typed.at(-1);
    box.select();
  });
});
