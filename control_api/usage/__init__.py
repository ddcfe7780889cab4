"""Usage: polled, and merged from ordinary traffic.

* `windows`: reading what the upstream tells, pure   * `verdict`: what a failed query means, pure
* `capacity`: what is left, as a weight, pure        * `models` · `service` · `worker` · `routes`
* `served`: the answers that clients of the proxy get
"""
