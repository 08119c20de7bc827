"""Tests of judge.py."""

import json
import unittest

from judge import judge, read_budgets, read_counts, read_ratios


def line(function, name, count):
    totals = {"total": {"metrics": {"Ir": {"values": {"new": count, "old": 7}}}}}
    return json.dumps({"function_name": function, "id": name, "profiles": [{"data": totals}]})


class Judgement(unittest.TestCase):
    def check(self, counts, budgets, wrong):
        table, found = judge(counts, read_budgets(budgets), read_ratios(budgets))
        self.assertEqual(found, wrong)
        return table

    def test_counts_are_read(self):
        text = "\n".join([line("a", "b", 10), line("a", "c", 20)])
        self.assertEqual(read_counts(text), {"a.b": 10, "a.c": 20})

    def test_budgets_are_read(self):
        text = "# why\n\na.b  1000  12_345  # because\n"
        self.assertEqual(read_budgets(text), {"a.b": (1000, 12345)})
        with self.assertRaises(ValueError):
            read_budgets("a.b 1 1\na.b 1 2\n")

    def test_up_to_the_budget_is_well(self):
        table = self.check({"a.b": 10_000}, "a.b 10 1_000", [])
        self.assertEqual(table[1].split(), ["a.b", "1,000", "1,000", "100.0%"])

    def test_above_is_not(self):
        table = self.check({"a.b": 10_010}, "a.b 10 1000", ["a.b takes 1,001 instructions; its budget is 1,000"])
        self.assertIn("ABOVE", table[1])

    def test_far_below_is_said(self):
        self.assertIn("a budget of 919 would", self.check({"a.b": 8_920}, "a.b 10 1000", [])[1])
        self.assertNotIn("far below", self.check({"a.b": 9_010}, "a.b 10 1000", [])[1])

    def test_one_may_take_so_much_more_than_another(self):
        budgets = "a.b 10 1000\na.c 1 1000\na.b / a.c 1.5  # why\n"
        self.assertEqual(read_ratios(budgets), [("a.b", "a.c", 1.5)])
        table = self.check({"a.b": 9_990, "a.c": 999}, budgets, [])
        self.assertEqual(table[3].split(), ["a.b", "/", "a.c", "1.000", "1.50"])
        above = "a.b takes 1.600 times what a.c does; at most 1.5 are allowed"
        self.assertIn("ABOVE", self.check({"a.b": 8_000, "a.c": 500}, budgets, [above])[3])
        missing = ["a.c has a budget and was not counted", "a.b and a.c are compared and not both counted"]
        self.check({"a.b": 8_000}, budgets, missing)

    def test_each_has_both(self):
        self.check({"a.b": 1}, "a.c 1 1", ["a.c has a budget and was not counted", "a.b was counted (1) and has no budget"])


if __name__ == "__main__":
    unittest.main()
