"""Usage: polled, and merged from ordinary traffic.

* `windows`: reading what the upstream tells, pure   * `verdict`: what a failed query means, pure
* `capacity`: what is left, as a weight, pure        * `queries`: asking upstreams
* `service`: what is known     * `models` · `worker` · `routes`
* `served`: the answers that clients of the proxy get
"""
