A misspelt environment variable, such as ``MACVLAN_TWISTED_STATEDIR``, is warned of at the start. It was ignored without a word.
