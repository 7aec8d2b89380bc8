// Package install makes hub and agent services of a machine, and takes them away again.
//
//	/usr/local/bin/petrel            the binary, one for both
//	/etc/petrel/{hub,agent}.yaml     settings, readable for root only: a token may be among them
//	systemd:  /etc/systemd/system/petrel-{hub,agent}.service
//	OpenRC:   /etc/init.d/petrel-{hub,agent}, in the runlevel default
//	plain:    /etc/init.d/petrel-{hub,agent}, linked from /etc/rc?.d, or as S90… where there are none
//
// Installing is also upgrading: what is as it should be is not written, each file is replaced as a whole, and a service starts
// again only when something of it changed. Pods go on meanwhile.
package install
