"""Accounts: who they are, what they may do now, and how they sign in.

* `models`: tables and API shapes      * `status`: the status machine, pure
* `identity`: auth.json and JWT claims  * `service`: reads and changes
* `oauth`: the auth server              * `login`: browser and device-code sign-in
* `addresses`: which upstream addresses are allowed
* `routes`: REST
"""
