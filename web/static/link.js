// One click signs in: the page sends its own form. A link preview runs no script, so it cannot use the link up.
document.querySelector("form[data-send-at-once]").requestSubmit();
