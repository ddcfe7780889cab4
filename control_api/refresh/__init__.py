"""Token refresh: once for everybody, never losing a rotated token.

* `schedule`: when a credential is due, pure   * `models`: the intent row
* `service`: the flights                       * `worker`: ahead of time, and after a rejection
"""
