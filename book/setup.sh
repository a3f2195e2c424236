#!/bin/bash
# Make the environment .venv; what `make setup` runs. PYTHON may name the Python that it is made with.
#
# .venv follows requirements.txt by content, not by date (a checkout touches dates). It holds a copy of the lock it was begun
# with (`begun`) and one of the lock it was finished with (`done`): an interrupted installation goes on, another lock starts anew.
# An environment that somebody else made has no `begun`: it is added to, never removed.
# Only `.venv/bin/python -m …`: so a folder with a space in its name works, and so does a moved one. For bash 3.2, that of macOS.
set -e

fail() { echo "$*" >&2; exit 1; }
version() { "$1" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }
fits() { [[ $1 =~ ^3\.1[1-4]\. ]]; }   # what requirements.txt has packages for
ours() { [ -e .venv/lock.begun ]; }
# Under another name first: what an interrupted removal leaves is not taken for an environment.
remove() { rm -rf .venv.old; mv .venv .venv.old; rm -rf .venv.old; }

choose() {   # the Python to begin with: the one that was named, or the first that fits
  local each found
  if [ -n "$PYTHON" ]; then
    found=$(version "$PYTHON")
    [ -n "$found" ] || fail "PYTHON is '$PYTHON', which was not found or does not start. Name yours: make PYTHON=/path/to/python3.12 book"
    fits "$found" || fail "The book needs Python 3.11 to 3.14; '$PYTHON' is Python $found. Name another: make PYTHON=python3.12 book"
    return
  fi
  for each in python3 python3.13 python3.12 python3.11 python3.14 "$HOME"/.pyenv/versions/3.1[1-4].*/bin/python3; do
    if fits "$(version "$each")"; then PYTHON=$each; return; fi
  done
  found=$(version python3)
  fail "The book needs Python 3.11 to 3.14, and none was found (python3 is ${found:-not there}). Name yours: make PYTHON=/path/to/python3.12 book"
}

rm -rf .venv.old
if [ -e .venv ] || [ -L .venv ]; then
  has=$(version .venv/bin/python)
  if [ -z "$has" ] && ours; then
    echo "The Python that .venv was made with is gone or was never whole: .venv is made anew."
    remove
  elif [ -z "$has" ]; then
    fail "There is a .venv here that make did not make, and its Python does not start. Move it away or delete it: rm -rf .venv"
  elif ! fits "$has"; then
    fail "The book needs Python 3.11 to 3.14, and the .venv here has $has. Move it away or delete it (rm -rf .venv)," \
         "and name another Python: make PYTHON=python3.12 book"
  elif [ -n "$PYTHON" ] && [ "$(version "$PYTHON")" != "$has" ]; then
    fail "PYTHON is '$PYTHON' (Python $(version "$PYTHON")), and the .venv here has $has. Leave PYTHON= out, or delete the other first: rm -rf .venv"
  fi
fi

if ! cmp -s requirements.txt .venv/lock.done; then
  if ours && { ! cmp -s requirements.txt .venv/lock.begun || ! .venv/bin/python -c 'import pip' 2>/dev/null; }; then remove; fi
  [ -e .venv ] || choose
  echo "Installing what requirements.txt locks into .venv (several GB; minutes, once) …"
  if [ ! -e .venv ]; then
    mkdir .venv
    cp requirements.txt .venv/lock.begun
    "$PYTHON" -m venv .venv || {
      rm -rf .venv
      fail "'$PYTHON' could not make an environment: see above. It needs room here and in ${TMPDIR:-/tmp} (df -h), and its module venv."
    }
  fi
  .venv/bin/python -c 'import pip' 2>/dev/null || .venv/bin/python -m ensurepip >/dev/null
  # In two halves side by side, of which one is CUDA's libraries: while one writes to the disk, the other unpacks.
  rm -f .venv/half.*
  half=rest
  while IFS= read -r line; do
    case $line in nvidia-* | cuda-* | triton*) half=cuda ;; [a-zA-Z]*) half=rest ;; esac
    printf '%s\n' "$line" >>".venv/half.$half"
  done <requirements.txt
  # Python compiles what it imports, a fifth of the files. From source nothing is built, whatever an index offers. The lock names all that
  # is needed, so neither half asks what a package needs; whether that is there is checked at the end, where nobody else installs.
  printf '%s\n' .venv/half.* | xargs -n 1 -P 2 .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile \
    --only-binary :all: --require-hashes --no-deps -r ||
    fail "The installation stopped: see above. Room is needed here and in ${TMPDIR:-/tmp} (df -h). The next make goes on from there."
  ! ours || .venv/bin/python -m pip check --disable-pip-version-check >.venv/check.log ||
    fail "requirements.txt does not hold all that is needed: $(cat .venv/check.log)"
  cp requirements.txt .venv/lock.done
  echo "… .venv is ready after $SECONDS s"
fi

# The package itself, from this folder. Nothing is fetched, so the settings that a reader's pip has are of no use here, and some do harm.
if ! { pwd; cat pyproject.toml; } | cmp -s - .venv/editable.done; then
  .venv/bin/python -m pip install --isolated --no-index --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  { pwd; cat pyproject.toml; } > .venv/editable.done
fi
