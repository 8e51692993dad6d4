#!/bin/sh
# The wheel in an empty environment, used outside the checkout: a study run, sealed and reported; also beside folders
# that are named as our packages.
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
gnc code --classes 6 --dim 4 --temperature 0.45 | grep phases  # from the shipped points
test -s results/smoke/results.parquet
test -s results/smoke/report/report.html

# Folders and modules named as ours beside the user's files.
mkdir -p shadow/study
touch shadow/study/__init__.py shadow/analysis.py
cp smoke.toml shadow
cd shadow
gnc check smoke.toml
gnc run smoke.toml --where 'seed == 0'  # Ray's workers too find ours
test -s results/smoke/results.parquet
refused() {  # with one line that names the folder
  if "$@" >said 2>&1; then echo "was not refused: $*"; exit 1; fi
  grep -q "$PWD/study stands in the way of the package study of gnc-study" said || { cat said; exit 1; }
  test "$(wc -l <said)" -eq "${lines:-1}" || { cat said; exit 1; }
}
refused python -m gnc check smoke.toml
refused python -m gnc.cli.main check smoke.toml
refused env PYTHONPATH=. gnc check smoke.toml
refused env PYTHONPATH=. gnc run smoke.toml
lines=$(python -c "import gnc" 2>&1 | wc -l)  # a traceback, and the line at its end
refused python -c "import gnc"
rm -r study
mkdir study  # hides nothing: analysis.py does
python -c "import gnc" 2>&1 | tail -n 1 | grep "$PWD/analysis.py stands in the way of the package analysis"
rm analysis.py
python -m gnc --version
python -c "import gnc"
cd ..
rm -rf "$checkout/build"
echo "the wheel works outside the checkout"
