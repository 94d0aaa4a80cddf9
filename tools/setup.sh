#!/bin/sh
# Sets up everything for `make demo` (and training), `make demo-human`, `make sample`, `make docs` or `make test` on a
# Debian machine with Python 3.11: system libraries, virtual environments, packages. As root it installs missing system libraries;
# otherwise it names them, and stops if it cannot do without.
# usage: tools/setup.sh demo|human|sample|docs|test
set -eu
unset PYTHONDONTWRITEBYTECODE # which images of containers like to set: what pip leaves uncompiled would never be compiled
what=$1
cd "$(dirname "$0")/.."

python=""
for candidate in python3.11 python3; do
    if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done

packages=""
need() { case " $packages " in *" $1 "*) ;; *) packages="$packages $1" ;; esac; }
has_library() { { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q "$1"; }

[ -n "$python" ] || { need python3 && need python3-venv; }
[ -z "$python" ] || [ -x .venv/bin/python ] || "$python" -c 'import ensurepip' 2>/dev/null || need python3-venv
# what the bpy wheel links against or opens at start
has_library libX11.so.6 || need libx11-6
has_library libXi.so.6 || need libxi6
has_library libXfixes.so.3 || need libxfixes3
has_library libXrender.so.1 || need libxrender1
has_library libXxf86vm.so.1 || need libxxf86vm1
has_library libSM.so.6 || need libsm6
has_library libICE.so.6 || need libice6
has_library libxkbcommon.so.0 || need libxkbcommon0
has_library libGL.so.1 || need libgl1
has_library libEGL.so.1 || need libegl1
if [ "$what" = test ]; then # the tests also run a real Blender binary, browser and Slurm, GNU parallel and Node
    command -v blender >/dev/null || { need blender && need python3-numpy; }
    command -v chromium >/dev/null || need chromium
    command -v parallel >/dev/null || need parallel
    command -v node >/dev/null || need nodejs
    command -v slurmctld >/dev/null || { need slurmctld && need slurmd && need munge; }
fi

if [ -n "$packages" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing system packages:$packages"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        # shellcheck disable=SC2086  # the list is meant to be split
        apt-get install -y -qq --no-install-recommends $packages >/dev/null
        [ -n "$python" ] || python=python3
    else
        echo "system packages are missing; ask an administrator for: apt-get install --no-install-recommends$packages" >&2
        # the tests skip what is not there; the demo and Python itself cannot
        [ "$what" = test ] && [ -n "$python" ] && [ "${CI:-}" != true ] || exit 4
    fi
fi
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "Python 3.11 is needed (the bpy wheel that everything was tested with exists for no other); found: $("$python" --version)" >&2
    exit 4
}

# the newest bpy needs Python 3.13; where there is one, the tests render with it too
install_newest_bpy() {
    for candidate in python3.13 "$(pyenv prefix 3.13 2>/dev/null || true)/bin/python3.13"; do
        "$candidate" -c 'import ensurepip' 2>/dev/null || continue
        newest=".venv-3.13/.ready-$(sha256sum pyproject.toml | cut -c1-16)"
        if [ ! -e "$newest" ]; then
            echo "installing Python packages into .venv-3.13 (blender)"
            [ -x .venv-3.13/bin/python ] || "$candidate" -m venv .venv-3.13
            .venv-3.13/bin/python -m pip install -q --no-compile --disable-pip-version-check -e ".[blender]"
            touch "$newest"
        fi
        break
    done
}

[ -x .venv/bin/python ] || "$python" -m venv .venv
case $what in
demo) extras="blender,report,train" ;;
human) extras="blender,report,train,scan,humans" ;;
sample) extras="blender,report,train,export" ;;
docs) extras="report,train,docs" ;; # the programs' help texts are part of the site
test) extras="blender,matsynth,report,export,view,train,dev,docs" ;;
*) echo "usage: tools/setup.sh demo|human|sample|docs|test" >&2; exit 2 ;;
esac
bpy_installs="" torch_compiles=""
if [ "$what" = test ]; then # while pip fetches PyTorch; not with the rest, which builds this package's metadata as well
    install_newest_bpy &
    bpy_installs=$!
fi
stamp=".venv/.ready-$what-$(sha256sum pyproject.toml | cut -c1-16)"
if [ ! -e "$stamp" ]; then
    echo "installing Python packages into .venv ($extras)"
    # --no-compile: 17,000 files would be compiled, a minute's work, of which few are ever imported
    # the tested version, by itself and first: a range would let pip take a newer one
    case ",$extras," in *,train,*)
        .venv/bin/python -m pip install -q --no-compile --disable-pip-version-check torch==2.13.0
        # compiles what of it is imported, while pip uses the other core: else the first start would
        .venv/bin/python -c "import torch._dynamo, torch.distributed.tensor" 2>/dev/null &
        torch_compiles=$!
        ;;
    esac
    [ -z "$bpy_installs" ] || wait "$bpy_installs"
    bpy_installs=""
    .venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -e ".[$extras]"
    [ -z "$torch_compiles" ] || wait "$torch_compiles" || true
    touch "$stamp"
fi
[ -z "$bpy_installs" ] || wait "$bpy_installs"
