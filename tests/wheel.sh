#!/bin/sh
# The wheel in an empty environment, used outside the checkout: a study run, sealed and reported.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
rm -rf "$checkout/build"  # setuptools would pack what an earlier build left there
"${PYTHON:-python3}" -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-deps -w "$scratch" "$checkout"
"$scratch/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$checkout/constraints.txt" "$scratch"/gnc_study-*.whl
cp "$checkout/studies/smoke.toml" "$scratch"
cd "$scratch"
PATH="$scratch/venv/bin:$PATH"
python -c "import study; assert 'site-packages' in study.__file__, study.__file__"
gnc --version
gnc check smoke.toml
gnc run smoke.toml
gnc report results/smoke
test -s results/smoke/results.parquet
test -s results/smoke/report/report.html
rm -rf "$checkout/build"
echo "the wheel works outside the checkout"
