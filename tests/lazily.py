from collections.abc import Callable, Mapping


class Lazily(Mapping):
    """Values by name, each made when it is first looked at."""

    def __init__(self, make: Mapping[str, Callable]):
        self.make, self.made = make, {}

    def __getitem__(self, name):
        if name not in self.made:
            self.made[name] = self.make[name]()
        return self.made[name]

    def __iter__(self):
        return iter(self.make)

    def __len__(self):
        return len(self.make)
