//! Evidence about a message (SPF, DKIM, DMARC, ARC, blocklists) and the judgement made of it.
