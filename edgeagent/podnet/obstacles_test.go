package podnet

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

func TestFirewallInTheWay(t *testing.T) {
	ctx := t.Context()
	m := newMachine(t, Config{})
	c, err := m.net.nft()
	must(t, err)
	drop := nftables.ChainPolicyDrop
	table := c.AddTable(&nftables.Table{Name: "filter", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{Name: "FORWARD", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
	must(t, c.Flush())
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	if p := m.net.Problems()[firewallProblem]; !strings.Contains(p, "chain FORWARD of table filter") || !strings.Contains(p, "-o petrel0 -j ACCEPT") {
		t.Errorf("problem: %q", p)
	}

	name := make([]byte, 16)
	copy(name, DefaultBridge)
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
	must(t, c.Flush())
	m.net.again(ctx) // Run looks
	if p := m.net.Problems(); len(p) != 0 {
		t.Errorf("problems although the bridge is allowed: %v", p)
	}
	c.DelTable(table)
	must(t, c.Flush())
}

func TestLANWithClusterAddresses(t *testing.T) {
	ctx := t.Context()
	m, other := newMachine(t, Config{ServiceCIDRs: prefixes("10.43.0.0/16")}), newMachine(t, Config{})
	must(t, m.net.Setup(ctx, prefixes("10.42.0.0/24")))
	if p := m.net.Problems(); len(p) != 0 {
		t.Fatalf("problems without a reason: %v", p)
	}
	connect(t, m, other, "10.43.5.1/24", "10.43.5.2/24")
	m.net.again(ctx) // Run looks
	if p := m.net.Problems()[overlapProblem]; !strings.Contains(p, "10.43.0.0/16 overlaps with 10.43.5.0/24") {
		t.Errorf("problem: %q", p)
	}
}
