from omnicalc.batches import batches


def test_batches_fill_the_budget_in_order():
    assert batches([4, 4, 4, 50, 4], 10) == [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    assert batches([], 10) == [] and batches([99], 10) == [range(0, 1)]
