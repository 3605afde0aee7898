"""Control: systems that act, by what they predict or are rewarded for."""
