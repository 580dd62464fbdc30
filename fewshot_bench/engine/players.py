"""Who trains what: held against the method's own parameters and turns."""

from __future__ import annotations

from collections.abc import Mapping

from fewshot_bench.errors import PluginError
from fewshot_bench.method import Method, Player, title_of


def check_players(method: Method) -> Mapping[str, Player]:
    """The method's players, if they and its turns make sense.

    Raises:
        PluginError: a parameter with two players, or a turn of an unknown player.
    """
    players = method.players()
    owner: dict[int, str] = {}
    for name, player in players.items():
        for parameter_name, parameter in player.parameters.items():
            if owner.setdefault(id(parameter), name) != name:
                raise PluginError(
                    f"{title_of(method)}.players(): parameter '{parameter_name}' belongs to "
                    f"both '{owner[id(parameter)]}' and '{name}'."
                )
    unknown = [n for turn in method.turns for n in turn if players and n not in players]
    if unknown:
        raise PluginError(
            f"{title_of(method)}.turns names player '{unknown[0]}', but players() gives: "
            f"{', '.join(players)}."
        )
    return players
