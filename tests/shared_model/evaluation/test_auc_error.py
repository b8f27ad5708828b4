import numpy as np
import pytest

from shared_model.evaluation.auc_error import auc_standard_error


def test_standard_error_is_hanleys_at_the_papers_size() -> None:
    error = auc_standard_error(np.array([0.78, 0.5]), events=130, others=1539)

    assert error[0] == pytest.approx(0.0243, abs=5e-4)
    assert error[1] > error[0]


def test_standard_error_of_one_pair_is_that_of_a_coin() -> None:
    assert float(auc_standard_error(np.array(0.5), events=1, others=1)) == pytest.approx(0.5)


def test_perfect_auc_has_no_error() -> None:
    assert float(auc_standard_error(np.array(1.0), events=5, others=9)) == 0.0
