"""The price of trials that may end before their cap is the cap's, by what a step of a stored trial took."""

import pytest

from gnc.cli.run_commands import _cost_sentence
from study.design.config import TrialConfig
from study.execution.cost import price
from study.store.store import Store
from tests.study.conftest import made_up_measurement, made_up_record

BUDGETS = {
    "stationary": {"budget": "stationary", "max_steps": 2000, "schedule": "cosine"},
    "terminal": {"budget": "terminal", "terminal_epochs": 20, "max_epochs": 222},
    "steps": {"steps": 2000},
}


def config_of(budget: str, **settings) -> TrialConfig:
    return TrialConfig(num_classes=24, feature_dim=3, measure="final", **BUDGETS[budget], **settings)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("taken", [200, 2000])
def test_a_trial_that_ended_early_does_not_make_the_next_one_look_cheap(store: Store, budget, taken):
    # 100 steps a second: 2,000 steps take 20 seconds, however soon the stored trial was at its end
    rows = [made_up_measurement(0, step=0), made_up_measurement(taken // 9, step=taken)]
    store.write_fragment(config_of("steps"), rows, made_up_record(seconds=taken / 100))
    found = price([config_of(budget, seed=1)], store, cpus=1)
    assert 19 < found.seconds < 35  # and what it costs to look for the end after each epoch
    assert found.is_bound == (budget != "steps")
    assert ("at most about" in _cost_sentence(found)) == found.is_bound
