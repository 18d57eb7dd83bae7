Networks, endpoints and addresses survive restarts and kills of the plugin. A state directory that is damaged or out of date is told at the start and not used.
