DROP TABLE client_limits_version;
DROP TABLE client_limits;
