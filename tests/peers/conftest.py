"""Both packages warn of each other and of what they import."""


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore")
