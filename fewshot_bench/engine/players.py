"""Who trains what: held against the method's own parameters and turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch.optim import Optimizer

from fewshot_bench.errors import ConfigError, PluginError
from fewshot_bench.method import Method, Player, title_of


def check_players(method: Method) -> Mapping[str, Player]:
    """The method's players, if they and its turns make sense; empty if nothing trains.

    A parameter that does not require gradients is frozen and has no player, whoever names it.

    Raises:
        PluginError: a parameter with two players, a turn of an unknown player, or players of a
            method that declares ``trains = False``.
        ConfigError: some players have something to train and others have not.
    """
    players = method.players()
    if players and not method.trains:
        raise PluginError(
            f"{title_of(method)} declares trains = False, but players() gives: "
            f"{', '.join(players)}."
        )
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
    return _with_parameters(method, players)


def _with_parameters(method: Method, players: Mapping[str, Player]) -> Mapping[str, Player]:
    trainable = {
        name: {n: p for n, p in player.parameters.items() if p.requires_grad and p.numel()}
        for name, player in players.items()
    }
    idle = [name for name, parameters in trainable.items() if not parameters]
    if len(idle) == len(players):
        return {}
    if idle:
        raise ConfigError(
            f"nothing to train here for player '{idle[0]}' of {title_of(method)}: none of its "
            "parameters requires gradients. Give a backbone that trains, or a method without that "
            "player."
        )
    return {
        name: player
        if len(trainable[name]) == len(player.parameters)
        else replace(player, parameters=trainable[name])
        for name, player in players.items()
    }


def make_optimizers(players: Mapping[str, Player]) -> dict[str, Optimizer]:
    """Each player's optimizer.

    Raises:
        ConfigError: a rate or factor out of range.
    """
    try:
        return {
            name: player.optimizer(list(player.parameters.values()))
            for name, player in players.items()
        }
    except ValueError as error:
        raise ConfigError(f"the optimizer refuses its settings: {error}.") from error
