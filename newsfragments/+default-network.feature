``--create-network NAME`` has the service create a network in Docker Engine with its own settings, as soon as the engine answers.
