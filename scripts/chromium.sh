#!/bin/sh
# A Chromium for the browser tests: the one that is there, or the system's package where we may install it.
# Always exits with 0: without one the browser tests say that they are skipped (in CI that is a failure of its own).
for name in chromium-headless-shell chromium chromium-browser google-chrome google-chrome-stable chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        echo "  Chromium: $(command -v "$name")"
        exit 0
    fi
done
if [ -d "/Applications/Google Chrome.app" ]; then
    echo "  Chromium: /Applications/Google Chrome.app"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "  Chromium: none found; install it to run the browser tests (they will be skipped)."
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "  Chromium: none found; 'sudo apt-get install chromium' makes the browser tests run (they will be skipped)."
    exit 0
fi
echo "  Installing Chromium with apt-get …"
# Debian has the engine alone, without a window and what that needs; other systems have the whole browser only.
if $as_root env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && { get="apt-get install -y -qq --no-install-recommends fonts-dejavu-core"; $get chromium-headless-shell || $get chromium; }' \
    >/tmp/chromium-install.$$ 2>&1; then
    echo "  Chromium: $(command -v chromium-headless-shell || command -v chromium)"
else
    tail -3 "/tmp/chromium-install.$$"
    echo "  Chromium: could not be installed; the browser tests will be skipped."
fi
rm -f "/tmp/chromium-install.$$"
exit 0
