-- The tables of schema version 1, in words that SQLite and PostgreSQL share; a test brings them to today's.
CREATE TABLE batches (
    batch_id VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    sealed BOOLEAN NOT NULL,
    total INTEGER NOT NULL,
    remaining INTEGER NOT NULL,
    drained_at FLOAT,
    PRIMARY KEY (batch_id)
);
CREATE TABLE credentials (
    secret_sha256 VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    csrf VARCHAR,
    created_at FLOAT NOT NULL,
    expires_at FLOAT,
    PRIMARY KEY (secret_sha256)
);
CREATE INDEX credentials_of_person ON credentials (name);
CREATE TABLE leases (
    ticket_id VARCHAR NOT NULL,
    token INTEGER NOT NULL,
    person VARCHAR NOT NULL,
    claim_id VARCHAR NOT NULL,
    claimed_at FLOAT NOT NULL,
    PRIMARY KEY (ticket_id, token)
);
CREATE UNIQUE INDEX leases_by_claim ON leases (person, claim_id);
CREATE TABLE masklets (
    batch_id VARCHAR NOT NULL,
    masklet_id VARCHAR NOT NULL,
    content TEXT NOT NULL,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (batch_id, masklet_id)
);
CREATE TABLE operations (
    operation_id VARCHAR NOT NULL,
    ticket_id VARCHAR NOT NULL,
    seq INTEGER NOT NULL,
    batch_id VARCHAR NOT NULL,
    video_id VARCHAR NOT NULL,
    masklet_id VARCHAR NOT NULL,
    person VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    frame_idx INTEGER,
    payload TEXT NOT NULL,
    created_at VARCHAR NOT NULL,
    received_at FLOAT NOT NULL,
    lease_token INTEGER NOT NULL,
    branch BOOLEAN NOT NULL,
    PRIMARY KEY (operation_id)
);
CREATE INDEX operations_of_batch ON operations (batch_id, ticket_id, seq);
CREATE UNIQUE INDEX operations_of_ticket ON operations (ticket_id, seq);
CREATE TABLE outbox (
    batch_id VARCHAR NOT NULL,
    created_at FLOAT NOT NULL,
    not_before FLOAT NOT NULL,
    attempts INTEGER NOT NULL,
    delivered_at FLOAT,
    last_error TEXT,
    PRIMARY KEY (batch_id)
);
CREATE TABLE people (
    name VARCHAR NOT NULL,
    roles VARCHAR NOT NULL,
    password_hash VARCHAR,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE schema_version (
    version SERIAL NOT NULL,
    PRIMARY KEY (version)
);
CREATE TABLE tickets (
    ticket_id VARCHAR NOT NULL,
    batch_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    video_id VARCHAR NOT NULL,
    masklet_id VARCHAR,
    phase VARCHAR NOT NULL,
    priority INTEGER NOT NULL,
    payload TEXT NOT NULL,
    made_by VARCHAR,
    needs_lead BOOLEAN NOT NULL,
    attempt INTEGER NOT NULL,
    previous_ticket_id VARCHAR,
    created_at FLOAT NOT NULL,
    ordinal INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    lease_token INTEGER NOT NULL,
    leased_by VARCHAR,
    expires_at FLOAT,
    verdict VARCHAR,
    reasons TEXT NOT NULL,
    finished_by VARCHAR,
    finished_at FLOAT,
    seconds FLOAT,
    next_ticket_id VARCHAR,
    settled VARCHAR,
    PRIMARY KEY (ticket_id)
);
CREATE INDEX tickets_finished ON tickets (finished_at);
CREATE INDEX tickets_leased ON tickets (expires_at) WHERE state = 'leased';
CREATE INDEX tickets_of_batch ON tickets (batch_id, settled, ticket_id);
CREATE INDEX tickets_ready ON tickets (kind, priority DESC, created_at, ordinal) WHERE state = 'open';
INSERT INTO schema_version VALUES (1);
