#!/bin/sh
# A C compiler for the native kernels: the one that is there, or the system's package where we may install it.
# Always exits with 0: without one torch does the same work, and the tests of the kernels say that they are skipped.
for name in ${CC:-} cc gcc clang; do
    if command -v "$name" >/dev/null 2>&1; then
        echo "  C compiler: $(command -v "$name")"
        exit 0
    fi
done
if ! command -v apt-get >/dev/null 2>&1; then
    echo "  C compiler: none found; torch does the work of the native kernels (their tests will be skipped)."
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "  C compiler: none found; 'sudo apt-get install gcc libc6-dev' makes the native kernels run (their tests will be skipped)."
    exit 0
fi
echo "  Installing a C compiler with apt-get …"
if $as_root env DEBIAN_FRONTEND=noninteractive sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev' >/tmp/compiler-install.$$ 2>&1; then
    echo "  C compiler: $(command -v gcc)"
else
    tail -3 "/tmp/compiler-install.$$"
    echo "  C compiler: could not be installed; the tests of the native kernels will be skipped."
fi
rm -f "/tmp/compiler-install.$$"
exit 0
